package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// object is a part of a JSON document, kept whole: fields that are not known here are handed on, and
// numbers keep their digits.
type object map[string]interface{}

func decode(text []byte) (object, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	found := object{}
	return found, decoder.Decode(&found)
}

func load(file string) (object, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	found, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return found, nil
}

func (o object) save(file string) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o600)
}

// copied is the same again, of which nothing is shared.
func (o object) copied() object {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // It came from JSON.
	}
	found, _ := decode(text)
	return found
}

func (o object) object(key string) object {
	return asObject(o[key])
}

// asObject is what was read from JSON or made here; nil for anything else.
func asObject(value interface{}) object {
	switch found := value.(type) {
	case object:
		return found
	case map[string]interface{}:
		return found
	}
	return nil
}

func (o object) objects(key string) []object {
	values, _ := o[key].([]interface{})
	found := []object{}
	for _, each := range values {
		if value := asObject(each); value != nil {
			found = append(found, value)
		}
	}
	return found
}

func (o object) strings(key string) []string {
	values, _ := o[key].([]interface{})
	found := []string{}
	for _, each := range values {
		if value, ok := each.(string); ok {
			found = append(found, value)
		}
	}
	return found
}

func (o object) string(key string) string {
	value, _ := o[key].(string)
	return value
}

func (o object) bool(key string) bool {
	value, _ := o[key].(bool)
	return value
}

// number is the digits of one, 0 where it is not there.
func (o object) number(key string) string {
	if value, ok := o[key].(json.Number); ok {
		return value.String()
	}
	return "0"
}

func (o object) has(key string) bool {
	value, ok := o[key]
	return ok && value != nil
}

// without is the same without some fields.
func (o object) without(keys ...string) object {
	found := object{}
	for key, value := range o {
		found[key] = value
	}
	for _, key := range keys {
		delete(found, key)
	}
	return found
}
