"""How fast the program is, and how far from what the machine could do: the stage `bench`."""
