"""Images that are no rows of the task: where they lie, and the units they are labelled in."""
