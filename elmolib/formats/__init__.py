"""Read and write weight files of elmolib and of other programs, without Keras."""
