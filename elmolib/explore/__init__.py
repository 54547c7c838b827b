"""Study words with their vectors: neighbours, senses, a comparison with word2vec, taggers."""
