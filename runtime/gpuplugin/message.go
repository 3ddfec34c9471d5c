package main

import (
	"encoding/binary"
	"errors"
)

// The messages of api.proto of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1 that are needed here have texts,
// other messages, and one bool. https://protobuf.dev/programming-guides/encoding/

// text is a field that holds a text.
func text(number int, value string) []byte { return nested(number, []byte(value)) }

// nested is a field that holds a message; an entry of a map is one, too, of key 1 and value 2.
func nested(number int, value []byte) []byte {
	made := binary.AppendUvarint(nil, uint64(number)<<3|2)
	return append(binary.AppendUvarint(made, uint64(len(value))), value...)
}

// truth is a field that is true.
func truth(number int) []byte { return append(binary.AppendUvarint(nil, uint64(number)<<3), 1) }

var errMessage = errors.New("the message of the kubelet cannot be read")

// parts are the texts or messages of a message's field, which may be there several times.
func parts(message []byte, number int) ([][]byte, error) {
	var found [][]byte
	for len(message) > 0 {
		tag, size := binary.Uvarint(message)
		if size <= 0 {
			return nil, errMessage
		}
		message = message[size:]
		value, size := binary.Uvarint(message)
		if size <= 0 || tag&7 != 0 && tag&7 != 2 {
			return nil, errMessage
		}
		message = message[size:]
		if tag&7 == 0 {
			continue
		}
		if value > uint64(len(message)) {
			return nil, errMessage
		}
		if tag>>3 == uint64(number) {
			found = append(found, message[:value])
		}
		message = message[value:]
	}
	return found, nil
}
