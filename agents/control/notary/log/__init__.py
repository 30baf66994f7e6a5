"""The notary's log: its tree and entries, the storage of its tiles, and the verification of what is added."""
