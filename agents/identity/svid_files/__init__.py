"""SVIDs as files, kept up to date for programs that read files, and the server process that reads them."""
