"""The network: character CNN, highway layers, LSTMs, softmax. It reads no files and no text."""
