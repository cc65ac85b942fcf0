"""The paper's tables and figures, and studies of one's own, from one command."""
