"""Bringing what people have into a project of Label Studio.

folders     a folder -> pictures with what is drawn and said, whatever the folder's layout
tasks       a picture -> a task with an annotation or a prediction, as a labelling interface can hold it
journal     how far an import is, kept below home
importer    all of it, going on where it was interrupted
"""
