"""What is given: the task file, the table, the photographs, their groups and folds."""
