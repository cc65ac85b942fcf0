"""From masks to files that a viewer opens.

`results`: the files of a scan, by its kind: volumes, video, and for DICOM
`segmentation_object`, with codes (what and where), identity (which model), inheriting (the patient), geometry (where frames lie), and
`measurement_report`, with measures.
"""
