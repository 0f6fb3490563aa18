"""What adapters share when they read people's files: tables, times, physical quantities, who is who.

Evidence comes before declaration: a header, a name or a setting's default is a claim; what the values say
counts. Where several readings fit, none is taken: the file is rejected with the setting that decides.
"""
