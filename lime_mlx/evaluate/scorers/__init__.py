"""From the text of an answer to a verdict, and from verdicts to figures. No model and no download is needed."""
