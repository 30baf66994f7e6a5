"""What is asked and what is answered: input documents, decisions, connections, and the port of engines."""
