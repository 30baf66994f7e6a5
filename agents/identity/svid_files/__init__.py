"""SVIDs as files, kept fresh for programs that read files, and the server process that reads them."""
