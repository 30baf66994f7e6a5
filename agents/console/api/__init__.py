"""What the console says to its pages: the routes of `/api`, and what stands behind each."""
