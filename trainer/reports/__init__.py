"""Records of finished runs, and the tables, comparisons and plots made of them."""
