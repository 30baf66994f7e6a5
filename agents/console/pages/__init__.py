"""The files that a browser gets, and people's logins and sessions."""
