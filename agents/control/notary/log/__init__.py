"""The notary's log: its tree and entries, where its tiles are stored, who verifies what goes in."""
