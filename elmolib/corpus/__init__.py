"""Turn text files into a prepared corpus, and a prepared corpus into one stream per direction."""
