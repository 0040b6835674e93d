"""What `init` recognizes in a folder: tables, forms to hand in, labels, splits."""
