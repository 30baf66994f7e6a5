"""Questions and answers: input documents, decisions, connections, and the port of engines."""
