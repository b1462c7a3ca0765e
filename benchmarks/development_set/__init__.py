"""A development set for repository search: packages nobody tuned for, and questions whose labels need no opinion."""
