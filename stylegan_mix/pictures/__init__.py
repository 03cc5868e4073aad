"""What a generator looks like: pictures that explain themselves, and the page that holds them.

Every picture is a function of (generator, seed); every number on the page comes from the report
that `metrics` keeps, or stands under the image that it was taken from.
"""
