"""The pages that a browser gets, and the logins of the people who look at them."""
