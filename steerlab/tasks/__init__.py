"""Tasks: one file a task; each builds its tidy table of prompts and training texts from raw files."""
