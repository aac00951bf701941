"""Back ends: from one integer program to code that runs somewhere."""
