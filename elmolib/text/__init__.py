"""Split text into words, and convert words to ids. No function here writes files."""
