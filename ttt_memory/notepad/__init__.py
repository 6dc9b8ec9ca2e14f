"""The notepad: passages with exact offsets, embedders, lexical and dense recall, and one ranking of both."""
