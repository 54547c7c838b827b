"""Components for the use of the embedder in other libraries: scikit-learn and spaCy."""
