package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// record is a line of a SIF's table.
func sifRecord(kind, format, role uint32, offset, size uint64) []byte {
	made := make([]byte, recordSize)
	binary.LittleEndian.PutUint32(made[kindAt:], kind)
	made[usedAt] = 1
	binary.LittleEndian.PutUint64(made[offsetAt:], offset)
	binary.LittleEndian.PutUint64(made[sizeAt:], size)
	binary.LittleEndian.PutUint32(made[formatAt:], format)
	binary.LittleEndian.PutUint32(made[roleAt:], role)
	return made
}

// sifOf is a file with a SIF's header, a table, and bytes up to a length.
func sifOf(t *testing.T, length int, records ...[]byte) *os.File {
	t.Helper()
	header := make([]byte, headerSize)
	copy(header[magicAt:], magic)
	binary.LittleEndian.PutUint64(header[recordsAt:], uint64(len(records)))
	binary.LittleEndian.PutUint64(header[tableAt:], headerSize)
	text := append(header, bytes.Join(records, nil)...)
	if length > len(text) {
		text = append(text, make([]byte, length-len(text))...)
	}
	name := filepath.Join(t.TempDir(), "it.sif")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func TestTheSystemPartitionOfASIFIsFound(t *testing.T) {
	unused := sifRecord(partition, formatSquashfs, primarySystem, 1, 1)
	unused[usedAt] = 0
	overlaid := sifRecord(partition, formatSquashfs, 4, 2, 2)
	found, err := fileSystemOf(sifOf(t, 8192, unused, sifRecord(0x4001, 0, 0, 3, 3), overlaid,
		sifRecord(partition, formatSquashfs, primarySystem, 4096, 4096)))
	if err != nil || found != (part{4096, 4096}) {
		t.Fatal(found, err)
	}
}

func TestWhatIsNoWholeSIFIsNotMounted(t *testing.T) {
	system := sifRecord(partition, formatSquashfs, primarySystem, 4096, 4096)
	huge := sifRecord(partition, formatSquashfs, primarySystem, 4096, ^uint64(0)-10)
	cutTable := sifOf(t, 0, system)
	if err := os.Truncate(cutTable.Name(), headerSize+10); err != nil {
		t.Fatal(err)
	}
	other := sifOf(t, 0)
	if err := os.WriteFile(other.Name(), []byte(strings.Repeat("x", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	many := sifOf(t, 0)
	if err := os.WriteFile(many.Name(), append(append(make([]byte, magicAt), magic...),
		bytes.Repeat([]byte{0xff}, 500)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for said, file := range map[string]*os.File{
		"8191 of 8192 bytes": sifOf(t, 8191, system), "it is cut off: it has": sifOf(t, 8192, huge),
		"it is cut off": cutTable, "it is no SIF": other, "its header is damaged": many,
		"it is encrypted": sifOf(t, 8192, sifRecord(partition, formatEncrypted, primarySystem, 4096, 4096)),
		"is no squashfs":  sifOf(t, 8192, sifRecord(partition, 2, primarySystem, 4096, 4096)),
		"no file system":  sifOf(t, 8192, sifRecord(0x4001, 0, 0, 3, 3)),
	} {
		if _, err := fileSystemOf(file); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v", said, err)
		}
	}
}

// See include/uapi/linux/loop.h.
func TestTheKernelsStructuresHaveTheirSizes(t *testing.T) {
	if size := unsafe.Sizeof(loopInfo{}); size != 232 {
		t.Error(size)
	}
	if size := unsafe.Sizeof(loopConfig{}); size != 304 {
		t.Error(size)
	}
}

func TestALoopDeviceOfAnotherPartIsAnother(t *testing.T) {
	wanted := loopInfo{device: 1, inode: 2, offset: 3, sizelimit: 4, flags: loopFlags}
	has := wanted
	has.number, has.flags = 7, loopFlags|2
	if !has.same(wanted) {
		t.Error(has)
	}
	for _, change := range []func(*loopInfo){
		func(l *loopInfo) { l.device++ }, func(l *loopInfo) { l.inode++ }, func(l *loopInfo) { l.offset++ },
		func(l *loopInfo) { l.sizelimit++ },
		// One that others can write to, and one that stays.
		func(l *loopInfo) { l.flags = 4 }, func(l *loopInfo) { l.flags = 1 },
	} {
		other := wanted
		change(&other)
		if other.same(wanted) {
			t.Error(other)
		}
	}
}

func TestOnlyADigestNamesASIF(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(digest), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, right := range map[string]bool{
		digest + "\n": true, digest: true, "": false, "../../etc/passwd": false, digest + "/": false,
		strings.ToUpper(digest): false, digest[1:]: false, digest + "\n\n": false,
		digest + strings.Repeat(" ", 100): false,
	} {
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, marker), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		found, err := marked(root)
		if right && (found != digest || err != nil) {
			t.Errorf("%q: %q %v", text, found, err)
		}
		if !right && (err == nil || !strings.Contains(err.Error(), "names no SIF")) {
			t.Errorf("%q: %q %v", text, found, err)
		}
	}
	root := t.TempDir()
	if found, err := marked(root); found != "" || err != nil {
		t.Error(found, err)
	}
	if err := os.Symlink(secret, filepath.Join(root, marker)); err != nil {
		t.Fatal(err)
	}
	if found, err := marked(root); err == nil {
		t.Error("a link was followed to " + found)
	}
	if err := os.Remove(filepath.Join(root, marker)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, marker), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := marked(root); err == nil {
		t.Error("a folder is no marker")
	}
}

func TestTheSIFIsBelowAllLayersOfTheImage(t *testing.T) {
	line := "1 2 0:40 / /b/rootfs rw,relatime shared:1 - overlay overlay "
	others := "9 2 0:41 / /b/rootfs/x rw - overlay overlay rw,lowerdir=/o,upperdir=/p,workdir=/q\n"
	found, err := layersOf(others+line+
		"rw,lowerdir=/l2:/l1,upperdir=/u,workdir=/w,index=off,uuid=on,nouserxattr\n", "/b/rootfs")
	found.lower += ":/sif"
	wanted := "lowerdir=/l2:/l1:/sif,upperdir=/u,workdir=/w,index=off"
	if options := found.options(); options != wanted || err != nil {
		t.Error(options, err)
	}
	for _, mounts := range []string{
		others, line + "rw,lowerdir=/l", line + "rw,lowerdir=l,upperdir=/u,workdir=/w",
		"1 2 0:40 /x /b/rootfs rw,relatime - ext4 /dev/a rw",
	} {
		if found, err := layersOf(mounts, "/b/rootfs"); err == nil {
			t.Errorf("%s: %v", mounts, found)
		}
	}
}

func TestProcessesGetTheEnvironmentOnce(t *testing.T) {
	for _, each := range [][2][]string{
		{{"env"}, {actions + "exec", "env"}}, {{actions + "run", "a"}, {actions + "run", "a"}}, {{}, {}},
	} {
		if found := inEnvironment(each[0]); !reflect.DeepEqual(found, each[1]) {
			t.Error(found)
		}
	}
}

func TestAProgramIsLookedForInTheContainer(t *testing.T) {
	root := t.TempDir()
	for _, each := range []string{"usr/bin", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, each), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.Symlink("/usr/bin", filepath.Join(root, "bin"))
	os.WriteFile(filepath.Join(root, "usr/bin/sh"), nil, 0o755)
	os.WriteFile(filepath.Join(root, "usr/bin/text"), nil, 0o644)
	os.Symlink("/bin/sh", filepath.Join(root, "usr/bin/loop"))
	for path, there := range map[string]bool{
		"/bin/sh": true, "/bin/loop": true, "/bin/text": false, "/bin/cat": false, "/usr/bin": false,
	} {
		if hasProgram(root, path) != there {
			t.Errorf("%s: %v", path, !there)
		}
	}
	os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root"), 0o644)
	os.Symlink("/etc/passwd", filepath.Join(root, "etc/group"))
	if text, ok := textOf(root, "etc/passwd"); text != "root" || !ok {
		t.Error(text, ok)
	}
	for _, each := range []string{"etc/group", "bin/text", "etc", "etc/shadow"} {
		if text, ok := textOf(root, each); ok {
			t.Errorf("%s: %s", each, text)
		}
	}
}

func TestWhatIsExecutedIsReadFromItsFile(t *testing.T) {
	c := parse(strings.Fields("--root /r exec --process /tmp/p --detach --pid-file /f abc"))
	if c.process != "/tmp/p" || c.id != "abc" {
		t.Errorf("%+v", c)
	}
	if c := parse([]string{"exec", "--process=/q", "abc"}); c.process != "/q" {
		t.Errorf("%+v", c)
	}
}

func TestASIFIsSignedByAKeyThatIsRequired(t *testing.T) {
	folder := t.TempDir()
	required, note := filepath.Join(folder, "required"), filepath.Join(folder, digest+".json")
	check := func(wanted, noted string, right bool) {
		t.Helper()
		os.WriteFile(required, []byte(wanted), 0o600)
		os.WriteFile(note, []byte(noted), 0o600)
		err := signed(digest, required, folder)
		if right && err != nil {
			t.Error(err)
		}
		if !right && (err == nil || !strings.Contains(err.Error(), "is not signed by a key")) {
			t.Error(err)
		}
	}
	if err := signed(digest, required, folder); err != nil {
		t.Error(err)
	}
	check("", `{}`, true)
	check("AA\nBB\n", `{"signers": ["CC", "BB"]}`, true)
	check("AA\nBB\n", `{"signers": ["CC"]}`, false)
	check("AA\n", `{"signers": []}`, false)
	check("AA\n", `{"layer": "x"}`, false)
	check("AA\n", `{"signers": ["A"]}`, false)
	check("AA\n", `no JSON`, false)
	os.Remove(note)
	if err := signed(digest, required, folder); err == nil {
		t.Error("a SIF of which nothing is noted was taken")
	}
}
