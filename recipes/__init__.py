"""Make the training text and the model that come with this project."""
