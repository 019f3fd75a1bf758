"""What the Hub shows: an embedding dataset and a Space; imports training and below."""
