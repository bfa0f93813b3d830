"""Measurements a user can repeat; each file says its command."""
