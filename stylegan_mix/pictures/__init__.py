"""Pictures of a generator that explain themselves, and the page that holds them.

Every picture is a function of (generator, seed). Every number on the page comes from the report of
`metrics`, or stands under the image that it was measured on.
"""
