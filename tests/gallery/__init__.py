"""The pictures of docs/gallery and the data of docs/live.md, which `python -m tests.gallery` makes."""
