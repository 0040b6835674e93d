"""What is given: the task file, the table, the images, their groups and folds."""
