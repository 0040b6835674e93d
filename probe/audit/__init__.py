"""What is wrong with the data: a table of audits, and the command that runs them."""
