package main

import (
	"encoding/binary"
	"fmt"
	"os"
)

// part is where in a file a file system lies, in bytes.
type part struct{ offset, size uint64 }

// Source: pkg/sif/sif.go of apptainer/sif at v2.19: a header and a table of records, both packed and
// little-endian.
const (
	headerSize, recordSize = 128, 585
	magicAt, magic         = 32, "SIF_MAGIC\x00"
	recordsAt, tableAt     = 88, 96 // in the header: how many records, and where they begin
	// In a record.
	kindAt, usedAt, offsetAt, sizeAt, formatAt, roleAt = 0, 4, 17, 25, 201, 205

	partition       = 0x4004
	formatSquashfs  = 1
	formatEncrypted = 5
	primarySystem   = 2
	// apptainer/sif makes 48 of them.
	mostRecords = 10000
)

// fileSystemOf finds the squashfs that a SIF's containers have as their root.
func fileSystemOf(file *os.File) (part, error) {
	info, err := file.Stat()
	if err != nil {
		return part{}, err
	}
	whole := uint64(info.Size())
	header := make([]byte, headerSize)
	if _, err := file.ReadAt(header, 0); err != nil || string(header[magicAt:magicAt+len(magic)]) != magic {
		return part{}, fmt.Errorf("it is no SIF")
	}
	count, table := binary.LittleEndian.Uint64(header[recordsAt:]), binary.LittleEndian.Uint64(header[tableAt:])
	if count > mostRecords || table > whole {
		return part{}, fmt.Errorf("its header is damaged")
	}
	record := make([]byte, recordSize)
	for i := uint64(0); i < count; i++ {
		if _, err := file.ReadAt(record, int64(table+i*recordSize)); err != nil {
			return part{}, fmt.Errorf("it is cut off")
		}
		number := func(at int) uint32 { return binary.LittleEndian.Uint32(record[at:]) }
		if record[usedAt] == 0 || number(kindAt) != partition || number(roleAt) != primarySystem {
			continue
		}
		switch number(formatAt) {
		case formatSquashfs:
		case formatEncrypted:
			return part{}, fmt.Errorf("it is encrypted, and pods have no key")
		default:
			return part{}, fmt.Errorf("its file system is no squashfs")
		}
		found := part{binary.LittleEndian.Uint64(record[offsetAt:]), binary.LittleEndian.Uint64(record[sizeAt:])}
		if found.offset > whole || found.size > whole-found.offset {
			return part{}, fmt.Errorf("it is cut off: it has %d of %d bytes", whole, found.offset+found.size)
		}
		return found, nil
	}
	return part{}, fmt.Errorf("it has no file system for a container")
}
