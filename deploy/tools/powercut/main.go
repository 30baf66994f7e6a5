// Powercut is a pass-through file system for tests. It remembers which bytes were handed to the disk by fsync, so that a
// test can take a store back to what is left of it after a power failure.
//
//	powercut LIVE DISK MOUNT        says "ready", serves MOUNT until SIGTERM or SIGINT, then unmounts it
//
// LIVE holds what programs see. DISK holds what survives: names and lengths as they are cut, at once, as a journal of
// metadata keeps them; contents only where fsync or fdatasync has returned for them. What was written and not synced reads
// as zeros there or, where it was appended, is not there at all. To cut the power: kill the program that uses MOUNT, stop
// powercut, and put a copy of DISK in the place of LIVE.
package main

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// span is a range of bytes that was written and not synced yet.
type span struct{ from, to int64 }

// disk is what survives. One lock orders everything that changes it: this is for tests, and order is what they rest on.
type disk struct {
	mu   sync.Mutex
	root string
}

// node is a file or a folder, at one path in LIVE and at the same one in DISK.
type node struct {
	fs.LoopbackNode
	disk  *disk
	spans []span
}

func (n *node) live() string            { return filepath.Join(n.RootData.Path, n.Path(n.Root())) }
func (n *node) kept(name string) string { return filepath.Join(n.disk.root, n.Path(n.Root()), name) }

// change carries out the same change on LIVE and, if it was made there, on DISK.
func (n *node) change(onLive func() syscall.Errno, onDisk func() error) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if errno := onLive(); errno != 0 {
		return errno
	}
	return fs.ToErrno(onDisk())
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (made *fs.Inode, errno syscall.Errno) {
	errno = n.change(func() (errno syscall.Errno) {
		made, errno = n.LoopbackNode.Mkdir(ctx, name, mode, out)
		return errno
	}, func() error { return os.Mkdir(n.kept(name), 0o700) })
	return made, errno
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.change(func() syscall.Errno { return n.LoopbackNode.Rmdir(ctx, name) },
		func() error { return os.Remove(n.kept(name)) })
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.change(func() syscall.Errno { return n.LoopbackNode.Unlink(ctx, name) },
		func() error { return os.Remove(n.kept(name)) })
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, renamed string, flags uint32) syscall.Errno {
	if flags != 0 {
		return syscall.ENOTSUP
	}
	to := parent.(*node).kept(renamed)
	return n.change(func() syscall.Errno { return n.LoopbackNode.Rename(ctx, name, parent, renamed, flags) },
		func() error { return os.Rename(n.kept(name), to) })
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	var made *fs.Inode
	var handle fs.FileHandle
	errno := n.change(func() (errno syscall.Errno) {
		made, handle, _, errno = n.LoopbackNode.Create(ctx, name, flags, mode, out)
		return errno
	}, func() error {
		kept, err := os.OpenFile(n.kept(name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		return errors.Join(err, kept.Close())
	})
	if errno != 0 {
		return nil, nil, 0, errno
	}
	return made, &file{node: made.Operations().(*node), under: handle.(*fs.LoopbackFile)}, 0, 0
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	handle, _, errno := n.LoopbackNode.Open(ctx, flags&^syscall.O_TRUNC)
	if errno != 0 {
		return nil, 0, errno
	}
	opened := &file{node: n, under: handle.(*fs.LoopbackFile)}
	if flags&syscall.O_TRUNC != 0 {
		in := &fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{Valid: fuse.FATTR_SIZE}}
		errno = n.Setattr(ctx, opened, in, &fuse.AttrOut{})
	}
	return opened, 0, errno
}

func (n *node) Setattr(ctx context.Context, handle fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.change(func() syscall.Errno {
		if opened, ok := handle.(*file); ok {
			return opened.under.Setattr(ctx, in, out)
		}
		return n.LoopbackNode.Setattr(ctx, nil, in, out)
	}, func() error {
		size, cut := in.GetSize()
		if !cut {
			return nil
		}
		left := n.spans[:0]
		for _, one := range n.spans {
			if one.to = min(one.to, int64(size)); one.from < one.to {
				left = append(left, one)
			}
		}
		n.spans = left
		return n.unlessGone(os.Truncate(n.kept(""), int64(size)))
	})
}

func (n *node) Getattr(ctx context.Context, handle fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if opened, ok := handle.(*file); ok {
		return opened.under.Getattr(ctx, out)
	}
	return n.LoopbackNode.Getattr(ctx, nil, out)
}

// What a store has no use for would be a way around the account of what was written.
func (n *node) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.ENOTSUP
}

func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOTSUP
}

// unlessGone forgets that a file is not there any more: what was removed while open needs no disk.
func (n *node) unlessGone(err error) error {
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	return err
}

// handOver copies what was written since the last sync from LIVE to DISK. The lock is held.
func (n *node) handOver() error {
	if len(n.spans) == 0 {
		return nil
	}
	from, err := os.Open(n.live())
	if err != nil {
		return n.unlessGone(err)
	}
	defer from.Close()
	to, err := os.OpenFile(n.kept(""), os.O_WRONLY, 0)
	if err != nil {
		return n.unlessGone(err)
	}
	for _, one := range n.spans {
		data := make([]byte, one.to-one.from)
		if _, err := from.ReadAt(data, one.from); err != nil {
			return errors.Join(err, to.Close())
		}
		if _, err := to.WriteAt(data, one.from); err != nil {
			return errors.Join(err, to.Close())
		}
	}
	n.spans = n.spans[:0]
	return to.Close()
}

// file is an open file. It has no more than a store uses: nothing that is written may pass it by.
type file struct {
	node  *node
	under *fs.LoopbackFile
}

func (f *file) Read(ctx context.Context, into []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	return f.under.Read(ctx, into, at)
}

func (f *file) Write(ctx context.Context, data []byte, at int64) (uint32, syscall.Errno) {
	f.node.disk.mu.Lock()
	defer f.node.disk.mu.Unlock()
	wrote, errno := f.under.Write(ctx, data, at)
	to := at + int64(wrote)
	if last := len(f.node.spans) - 1; last >= 0 && f.node.spans[last].to == at {
		f.node.spans[last].to = to
	} else if wrote > 0 {
		f.node.spans = append(f.node.spans, span{at, to})
	}
	return wrote, errno
}

func (f *file) Fsync(context.Context, uint32) syscall.Errno {
	f.node.disk.mu.Lock()
	defer f.node.disk.mu.Unlock()
	return fs.ToErrno(f.node.handOver())
}

func (f *file) Flush(ctx context.Context) syscall.Errno   { return f.under.Flush(ctx) }
func (f *file) Release(ctx context.Context) syscall.Errno { return f.under.Release(ctx) }

func serve(live, kept, mount string) error {
	root, err := fs.NewLoopbackRoot(live)
	if err != nil {
		return err
	}
	data := root.(*fs.LoopbackNode).RootData
	survives := &disk{root: kept}
	data.NewNode = func(data *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &node{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: survives}
	}
	top := &node{LoopbackNode: fs.LoopbackNode{RootData: data}, disk: survives}
	data.RootNode = top
	// Mounted by the system call: there need be no fusermount, but we have to be root.
	options := &fs.Options{MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powercut", Name: "powercut"}}
	server, err := fs.Mount(mount, top, options)
	if err != nil {
		return err
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	<-told
	return server.Unmount()
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: powercut LIVE DISK MOUNT")
		os.Exit(2)
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "powercut:", err)
		os.Exit(1)
	}
}
