"""What every room needs: source spans, the error classes and how they print, debug flags.

Nothing here knows about IR, compilation or any library.
"""
