"""The store on disk: format 1, its writer and its reader. Knows no torch and no Dask."""
