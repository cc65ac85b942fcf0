"""Bulk prediction: many images, on one machine or a cluster, with Ray Data; docs/bulk.md says what it promises.

run.py is the verb, pool.py shares out the processors, inputs.py finds the images, pipeline.py is what the machines do with
them, manifest.py is the record of what is done, store.py writes files whole on any store. Nothing is imported here: the
processes that decode and write load pipeline.py alone, without the models' libraries.
"""
