# The core file that the next test looks at
generate-core-file watched.core
