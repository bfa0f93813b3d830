"""Text to ids and back: where it comes from, how it is cleaned, how it is cut."""
