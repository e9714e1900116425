"""Recipes: ready-made chains of transforms, without arithmetic of their own."""
