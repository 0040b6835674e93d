"""The small server of the page: its index, its addresses, and who may ask."""
