"""Several devices, several processes, and their memory."""
