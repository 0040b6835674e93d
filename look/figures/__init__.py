"""Figures for papers, drawn by matplotlib: `look --figures`."""
