"""The layers that a biLM is made of, one public class per file."""
